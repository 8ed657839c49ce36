"""One kind of file each: images, masks, MATLAB files, COCO JSON, depth."""
