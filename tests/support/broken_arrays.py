"""Files that should hold arrays and do not: cut short, damaged, pickled, or of another kind."""

import io
import zipfile

import numpy as np

RANDOM = np.random.default_rng(6)


def rows(count=40, width=8):
    return RANDOM.normal(size=(count, width)).astype(np.float32)


def broken(name, folder):
    path = folder / name
    whole = io.BytesIO()
    np.savez_compressed(whole, x=rows())
    if name == "cut.npz":
        path.write_bytes(whole.getvalue()[:-40])
    elif name == "damaged.npz":
        content = bytearray(whole.getvalue())
        content[200:400] = bytes(200)
        path.write_bytes(content)
    elif name == "cut.npy":
        np.save(path, rows())
        path.write_bytes(path.read_bytes()[:-40])
    elif name == "objects.npy":
        np.save(path, np.array([{}, {}]), allow_pickle=True)
    elif name == "objects.npz":
        np.savez(path, x=np.array([{}, {}]))
    elif name == "letter.docx":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x", "Dear colleague")
    elif name == "encrypted.npz":
        # The flag of encryption, in the entry and in the directory.
        content = bytearray(whole.getvalue())
        for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            content[content.index(mark) + place] |= 1
        path.write_bytes(content)
    elif name == "text.npz":
        path.write_text("patient,age\n")
    else:
        path.touch()
    return name


BROKEN = (
    *("cut.npz", "damaged.npz", "cut.npy", "objects.npy", "objects.npz", "letter.docx"),
    *("encrypted.npz", "text.npz", "empty.npz"),
)
