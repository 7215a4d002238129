"""Tiny data in the official layouts, with known classes by position. Each writer returns its root."""

import numpy as np
from PIL import Image

FACE = np.zeros((32, 32), np.uint8)  # Helen's numbers; the viewer's left is the left of the array
FACE[2:30, 4:28] = 1
FACE[8:10, 6:14], FACE[8:10, 18:26] = 2, 3
FACE[12:15, 7:12], FACE[12:15, 20:25] = 4, 5
FACE[14:20, 15:17] = 6
FACE[22:24, 10:22], FACE[24:25, 10:22], FACE[25:27, 10:22] = 7, 8, 9
FACE[0:4] = 10

# Helen's number of each CelebAMask part: its sides are the subject's, so l_eye is the eye on the right
CELEBA = {
    "skin": 1, "nose": 6, "l_eye": 5, "r_eye": 4, "l_brow": 3, "r_brow": 2, "mouth": 8, "u_lip": 7, "l_lip": 9,
    "hair": 10,
}  # fmt: skip


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def plain(shape, value):
    """An image of a single color, which identifies it and is hardly changed by JPEG."""
    return np.full((*shape, 3), value % 256, np.uint8)


def helen(root, count=12, tests=3, resorted=False):
    for part, total in (("train", count), ("test", tests)):
        for i in range(total):
            if resorted:
                image, label = (root / "splitted_Data" / part / kind for kind in ("images", "labels"))
            else:
                image = label = root / part
                save(image / f"{i}_1_viz.jpg", plain(FACE.shape, 99))
            save(image / f"{i}_1_image.jpg", plain(FACE.shape, 10 * i))
            save(label / f"{i}_1_label.png", FACE)
    return root


def celebamask(root, ids=range(12), mapping=None, size=32):
    for i in ids:
        save(root / "CelebA-HQ-img" / f"{i}.jpg", plain((size, size), i))
        for part, value in CELEBA.items():
            present = FACE > 0 if part == "skin" else FACE == value  # in the release, skin is below the others
            image = np.repeat(present[..., None].astype(np.uint8) * 255, 3, axis=2)
            save(root / "CelebAMask-HQ-mask-anno" / str(i // 2000) / f"{i:05d}_{part}.png", image)
    if mapping is not None:
        rows = [f"{i}  {number}  {number + 1:06d}.jpg" for i, number in mapping.items()]
        (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("idx  orig_idx  orig_file\n" + "\n".join(rows) + "\n")
    return root


def cityscapes(root, ending="labelIds", values=range(34), **cities):
    """Frames whose labels are `values` from left to right; `cities` are names and counts by split."""
    labels = np.resize(np.array(values, np.uint8), (16, len(values)))
    for split, counts in (cities or {"train": {"aachen": 3, "ulm": 2}, "val": {"munster": 2}}).items():
        for city, count in counts.items():
            for i in range(count):
                stem = f"{city}_{i:06d}_000019"
                save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", plain(labels.shape, 10 * i))
                save(root / "gtFine" / split / city / f"{stem}_gtFine_{ending}.png", labels)
                save(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", labels.astype(np.uint16))
                (root / "gtFine" / split / city / f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def carvana(root, cars=10, views=16, images="train"):
    for car in range(cars):
        for view in range(1, views + 1):
            name = f"{car:02d}ab_{view:02d}"
            mask = np.zeros((20, 30), np.uint8)
            mask[5:15, 4 : 10 + view] = 255
            save(root / images / f"{name}.jpg", plain(mask.shape, 5 * car + view))
            save(root / "train_masks" / f"{name}_mask.gif", mask)
    return root


def camvid(root, segnet=True, **counts):
    labels = np.resize(np.arange(12, dtype=np.uint8), (10, 12))
    for split, count in (counts or {"train": 4, "val": 2, "test": 1}).items():
        images, masks = (split, f"{split}annot") if segnet else (f"images/{split}", f"labels/{split}")
        for i in range(count):
            save(root / images / f"0001TP_{i:06d}.png", plain(labels.shape, 10 * i))
            save(root / masks / f"0001TP_{i:06d}.png", labels)
    return root
