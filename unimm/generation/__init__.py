"""Writing and drawing: the engine, single pictures, stories and their pages."""

from unimm.generation.book import Story
from unimm.generation.image import generate_image
from unimm.generation.story import StoryEvent, generate_story

__all__ = ["Story", "StoryEvent", "generate_image", "generate_story"]
