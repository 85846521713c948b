"""Ask a model for the pictures of requests, those that are not there yet, many at once."""

from collections.abc import Callable, Sequence

from PIL import Image

from unimm.document import mix_seed
from unimm.evaluation.picture_folder import PictureFolder
from unimm.evaluation.picture_requests import PictureRequest
from unimm.generation.image import generate_image
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline


def draw_missing(
    pipeline: Pipeline,
    folder: PictureFolder,
    requests: Sequence[PictureRequest],
    sampling: SamplingConfig,
    *,
    num_samples: int,
    seed: int,
    batch_size: int,
    tell: Callable[[str], None],
) -> int:
    """Draw into ``samples/`` what is missing there; gives the number of pictures drawn.

    A prompt that does not fit the model's context gets no picture and is told; judging counts it.

    Args:
        pipeline: model and tokenizers.
        folder: of the run.
        requests: what is asked for.
        sampling: how pictures are drawn.
        num_samples: pictures of each request.
        seed: with the numbers of request and picture it seeds a picture, whatever the batch.
        batch_size: pictures at once.
        tell: called with a line for each batch.
    """
    places = folder.missing(len(requests), num_samples)
    num_drawn = 0
    for start in range(0, len(places), batch_size):
        chunk = places[start : start + batch_size]
        prompts = [requests[request].prompt for request, _ in chunk]
        seeds = [mix_seed(seed, request, sample) for request, sample in chunk]
        pictures = draw_prompts(pipeline, prompts, seeds, sampling)
        for place, prompt, picture in zip(chunk, prompts, pictures, strict=True):
            if picture is None:
                tell(f"no picture of {prompt!r}: it does not fit the context")
            else:
                folder.write_sample(*place, picture)
                num_drawn += 1
        tell(f"drew {start + len(chunk)} of {len(places)} pictures")
    return num_drawn


def draw_prompts(
    pipeline: Pipeline, prompts: list[str], seeds: list[int], sampling: SamplingConfig
) -> list[Image.Image | None]:
    """Draw a batch; one prompt that is too long must not take the others with it.

    Args:
        pipeline: model and tokenizers.
        prompts: drawn together.
        seeds: of each picture.
        sampling: how pictures are drawn.

    Returns:
        A picture a prompt; None where the prompt does not fit the model's context.
    """
    try:
        return list(generate_image(pipeline, prompts, seed=seeds, **vars(sampling)))
    except ValueError:
        if len(prompts) == 1:
            return [None]
        middle = len(prompts) // 2
        halves = (slice(None, middle), slice(middle, None))
        return [
            picture
            for half in halves
            for picture in draw_prompts(pipeline, prompts[half], seeds[half], sampling)
        ]
