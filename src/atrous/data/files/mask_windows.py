"""Masks of large rasters, read in windows: TIFFs and arrays whose values or colours are the classes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from atrous.data.files.kept import kept_raster
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import DecodedMask, MaskError, MaskFile, MaskRef, labels_of
from atrous.data.files.rasters import TIFF_SUFFIXES, Span, TiffRaster, import_rasterio
from atrous.labels import Mask

_LOSSY = {"JPEG", "YCBCR_JPEG", "WEBP", "LERC"}
"""Compressions of TIFFs that may change labels, as rasterio calls them."""


def mask_is_windowed(mask: MaskRef) -> bool:
    """Whether windows of a mask can be read without the whole."""
    suffix = mask.path.suffix.lower()
    return type(mask) is MaskFile and (suffix == ".npy" or (suffix in TIFF_SUFFIXES and import_rasterio() is not None))


class MaskWindows:
    """A mask that is read in windows.

    Args:
        ref: where it is kept.
        form: how it is written.

    Raises:
        ImageError: it can't be read.
        MaskError: compressed with loss.
    """

    def __init__(self, ref: MaskRef, form: MaskForm) -> None:
        self.ref, self.form = ref, form
        self.raster = kept_raster(ref.path)
        self.size = self.raster.height, self.raster.width
        if isinstance(self.raster, TiffRaster):
            self.raster.require_complete()
        compression = self.raster.compression if isinstance(self.raster, TiffRaster) else ""
        if compression in _LOSSY:
            raise MaskError(
                f"{ref}: compressed as {compression}, which changes labels along every edge; export the mask again as "
                "a TIFF with -co COMPRESS=DEFLATE"
            )

    def read(self, rows: Span, columns: Span) -> Mask:
        """The labels of a window: uint8 ``(h, w)``, values below ``len(form.label_set)`` or 255.

        Raises:
            ImageError: the file is damaged there.
            MaskError: values or colours of no class.
        """
        return labels_of(self.decode(rows, columns), self.form)

    def decode(self, rows: Span, columns: Span) -> DecodedMask:
        """A window as it is stored.

        Raises:
            ImageError, MaskError: as for :meth:`read`.
        """
        palette = self.raster.palette if isinstance(self.raster, TiffRaster) else None
        if isinstance(self.raster, TiffRaster):
            values = self.raster.read_stored(rows, columns)
        else:
            values = self.raster.read(rows, columns)
        if values.shape[2] == 3:
            return DecodedMask(str(self.ref), Image.fromarray(np.ascontiguousarray(values)))
        if values.shape[2] != 1 or values.dtype.kind not in "uib":
            found = f"{values.shape[2]} bands of {values.dtype}"
            raise MaskError(f"{self.ref}: {found}, expected one band of classes, or three of their colours")
        plane = values[..., 0]
        small = plane.dtype.itemsize == 1 and plane.dtype.kind != "i"
        image = Image.fromarray(np.ascontiguousarray(plane.astype(np.uint8 if small else np.int32)))
        if palette is not None:
            image.putpalette(palette.tobytes())  # which makes its mode P
        return DecodedMask(str(self.ref), image)
