import pytest
import torch
from labelled_folders import write_fashion_mnist

from unimm.data.labelled.fashion_mnist import FashionMnistConfig

CPU = torch.device("cpu")


def test_files_are_read_and_parted(tmp_path):
    write_fashion_mnist(tmp_path)
    config = FashionMnistConfig(
        folder=str(tmp_path), num_train=100, num_validation=10, num_test=15, image_size=28
    )
    data = config.read(CPU)
    assert [len(x) for x in (data.train, data.validation, data.test)] == [50, 10, 15]
    assert data.train.pixels.shape == (50, 3, 28, 28)
    assert data.train.need("labels").tolist()[:12] == [*range(10), 0, 1]
    # The bright row is where the label says.
    rows = data.test.pixels[:, 0].float().mean(2).argmax(1)
    assert torch.equal(rows, 2 * data.test.need("labels") + 4)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"apt install dataset-fashion-mnist"):
        FashionMnistConfig(folder=str(tmp_path / "none")).read(CPU)
    write_fashion_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"train-images.*MNIST's format"):
        FashionMnistConfig(folder=str(tmp_path), num_validation=10).read(CPU)
