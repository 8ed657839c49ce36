"""CVAT's serverless function for a model of Atrous: nuclio calls ``handler`` with an image in base64."""

import base64
import json
import os

import atrous
from atrous.serve.cvat import masks_of


def init_context(context):
    """Load the model once, when the function starts."""
    context.user_data.model = atrous.load(os.environ.get("ATROUS_MODEL", "deeplabv3plus_lite0_voc"))
    context.logger.info(f"loaded {context.user_data.model.name}")


def handler(context, event):
    """Answer with a mask for each object."""
    try:
        image = base64.b64decode(event.body["image"])
        found = atrous.predict(context.user_data.model, image, keep_probabilities=True)
        body, status = json.dumps(masks_of(found, float(event.body.get("threshold") or 0))), 200
    except (atrous.AtrousError, KeyError, TypeError, ValueError) as error:
        body, status = json.dumps({"detail": str(error)}), 400
    return context.Response(body=body, headers={}, content_type="application/json", status_code=status)
