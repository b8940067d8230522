"""From a request's words to the exact string the models were trained on.

Source: deepseek-ai/Janus@1daa72f janus/utils/conversation.py (DeepseekChat template),
VLChatProcessor.apply_sft_template; janus/janusflow/models/processing_vlm.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
IMAGE_START = "<begin_of_image>"
IMAGE_END = "<end_of_image>"
IMAGE = "<image_placeholder>"
IMAGE_DRAWN = "<｜begin▁of▁generation｜>"  # JanusFlow's; the model never sees it
MARKS = (IMAGE,)
"""What the official processor adds to a tokenizer that lacks it, in this order."""
FLOW_MARKS = (IMAGE, IMAGE_DRAWN, IMAGE_START, IMAGE_END)
"""The same of JanusFlow's."""

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True)
class Roles:
    """How a model spells who is speaking."""

    user: str
    assistant: str


PLAIN = Roles(user="User", assistant="Assistant")  # Janus-1.3B, JanusFlow
BRACKETED = Roles(user="<|User|>", assistant="<|Assistant|>")  # Janus-Pro
ROLES = {"plain": PLAIN, "bracketed": BRACKETED}


def format_conversation(messages: Sequence[tuple[str, str]], system: str) -> str:
    """Join (role, text) messages. Separators go by position, not by role; an empty text leaves "role:" open."""
    parts = [system + "\n\n"] if system else []
    for index, (role, text) in enumerate(messages):
        separator = EOS if index % 2 else "\n\n"
        parts.append(f"{role}: {text.strip()}{separator}" if text.strip() else f"{role}:")
    return "".join(parts).strip()


def caption_prompt(prompt: str, roles: Roles) -> str:
    """The string for a question about images; one image mark is put in front where the prompt has none."""
    question = prompt if IMAGE in prompt else f"{IMAGE}\n{prompt}"
    return format_conversation([(roles.user, question), (roles.assistant, "")], SYSTEM_PROMPT)


def image_prompt(prompt: str, roles: Roles) -> str:
    """The string for an image to be drawn; it ends in the begin-of-image mark, where JanusFlow puts the time."""
    return format_conversation([(roles.user, prompt), (roles.assistant, "")], "") + IMAGE_START
