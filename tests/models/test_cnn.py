import numpy as np
import pytest
import torch

from medpipe.models.cnn import ImageClassifier, ImageConfig, channels_last, fused


@pytest.fixture
def model():
    """A model whose normalisations have seen images, so that they do something."""
    torch.manual_seed(0)
    model = ImageClassifier(ImageConfig(28, 28, channels=4))
    for _ in range(3):
        model(torch.rand(16, 1, 28, 28) * 3)
    return model.eval()


@pytest.mark.parametrize("form", [fused, channels_last])
def test_a_form_for_scoring_is_the_same_function(model, form):
    pixels = torch.rand(9, 1, 28, 28)
    with torch.inference_mode():
        expected = model(pixels)
    with torch.no_grad():
        quicker = form(model)
    with torch.inference_mode():
        for num_images in (9, 4, 1):  # the last batch of a table is as large as it happens to be
            found = quicker(pixels[:num_images]).numpy()
            np.testing.assert_allclose(found, expected[:num_images].numpy(), atol=2e-6)
        np.testing.assert_array_equal(model(pixels).numpy(), expected.numpy())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quicker.modules())


def test_channels_last_lie_so_in_memory(model):
    convolution = channels_last(model).stages[-1][0]
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (64, 48), (224, 224)])
def test_any_size_gives_one_logit_an_image(height, width):
    model = ImageClassifier(ImageConfig(height, width, channels=4)).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, 1, height, width)).shape == (2,)


def test_an_image_is_scored_alike_in_any_company(model):
    pixels = torch.rand(5, 1, 28, 28)
    with torch.inference_mode():
        together, alone = model(pixels), torch.cat([model(pixels[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone.numpy(), together.numpy(), atol=1e-6)
