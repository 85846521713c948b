"""Writing and drawing: the engine, single pictures, stories and their pages."""

from unimm.generation.book import Story
from unimm.generation.cache_policy import CachePolicy
from unimm.generation.generate import generate
from unimm.generation.image import generate_image
from unimm.generation.story import generate_story
from unimm.generation.telling import StoryEvent

__all__ = ["CachePolicy", "Story", "StoryEvent", "generate", "generate_image", "generate_story"]
