"""Writing datasets in the forms of annotation tools."""
