"""Training from recipes: SGD or AdamW over one or several stages and processes, resumable bit-exactly."""

from atrous.training.recipe import Recipe, RecipeError, check_recipe
from atrous.training.recipe_file import load_recipe
from atrous.training.stages import train
from atrous.training.types import Progress, Result, Stopped

__all__ = ["Progress", "Recipe", "RecipeError", "Result", "Stopped", "check_recipe", "load_recipe", "train"]
