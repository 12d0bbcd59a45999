"""The three kinds of message: requests are strict about fields they do not know, facts and desired state are not."""

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from vmfabric.contract.subjects import Template


class Request(BaseModel):
    """Something that somebody outside asks for. A field we do not know is an error: it may be a typing mistake."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Event(BaseModel):
    """A message on a subject of its own, which carries in its fields every name that the subject needs."""

    subject_template: ClassVar[Template]

    def subject(self) -> str:
        """The subject of this event; its names are validated fields, never text from outside."""
        return self.subject_template.render({name: getattr(self, name) for name in self.subject_template.names})

    @classmethod
    def event_type(cls) -> str:
        """The CloudEvents type, `vmfabric.<entity>.<verb>.v1`."""
        return f"vmfabric.{cls.subject_template.stem}.v1"


class RequestEvent(Request, Event):
    """A request that travels as an event; it may be published with or without the names behind its subject."""


class Fact(Event):
    """Something that happened. Fields that we do not know yet are ignored, so a newer service may add some."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Part(BaseModel):
    """A piece of a fact or of desired state."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Desired(BaseModel):
    """What should be: a value in the bucket of desired state. Its key has one writer."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    def key(self) -> str:
        """Its key in the bucket."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The stored form. The same value always gives the same bytes."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """ValidationError when the bytes are not this model."""
        return cls.model_validate_json(data)
