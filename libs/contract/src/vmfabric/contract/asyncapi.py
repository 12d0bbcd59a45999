"""The contract as an AsyncAPI 3 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0).

Generated from the models, committed as `docs/asyncapi.json`; `./vmfabric check` fails when the file is stale.
"""

import inspect
import json
from itertools import chain
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vmfabric.contract import addressing, admin, explanation, retry
from vmfabric.contract.desired import (
    BUCKET,
    NODE_KEY,
    POOLS_KEY,
    VM_KEY,
    DesiredPools,
    DesiredVm,
    FabricNode,
    RoutingNode,
    SwitchingNode,
)
from vmfabric.contract.model import Event, RequestEvent
from vmfabric.contract.streams import FACTS, PASSING, REQUESTS
from vmfabric.contract.subjects import Template

Json = dict[str, Any]

ADMINISTRATION: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "cluster.apply": (admin.ApplyCluster, admin.Applied),
    "cluster.list": (admin.List, admin.Clusters),
    "node.apply": (admin.ApplyNode, admin.Applied),
    "node.list": (admin.ListOfCluster, admin.Nodes),
    "node.delete": (admin.DeleteNode, admin.Applied),
    "node.drain": (admin.DrainNode, admin.Drain),
    "node.undrain": (admin.UndrainNode, admin.Drain),
    "node.audit": (explanation.AuditNode, explanation.NodeAudit),
    "node.retry": (retry.RetryNode, retry.Retried),
    "node.evacuate": (admin.EvacuateNode, admin.Drain),
    "vm.get": (admin.GetVm, admin.VmState),
    "vm.list": (admin.ListOfCluster, admin.Vms),
    "vm.explain": (admin.GetVm, explanation.VmExplanation),
    "network.apply": (admin.ApplyNetwork, admin.Applied),
    "network.delete": (admin.DeleteNetwork, admin.Applied),
    "network.list": (admin.List, admin.Networks),
    "pool.apply": (admin.ApplyPool, admin.Applied),
    "pool.delete": (admin.DeletePool, admin.Applied),
    "pool.list": (admin.ListOfCluster, admin.Pools),
    "pool.free": (addressing.ListFree, addressing.FreeAddresses),
    "ip.list": (admin.ListOfCluster, admin.Addresses),
    "ip.explain": (admin.ExplainAddress, admin.Explanation),
    "pool.usage": (addressing.AskUsage, addressing.UsageReport),
    "ip.history": (addressing.AskHistory, addressing.AddressHistory),
    "ip.reserve": (addressing.ReserveAddresses, addressing.Reserved),
    "ip.release": (addressing.ReleaseAddresses, addressing.Released),
    "ip.import": (addressing.ImportAddresses, addressing.Imported),
    "ip.audit": (explanation.AuditAddresses, explanation.AddressAudit),
}
"""Request and answer of each administration subject."""

_DESIRED: dict[Template, tuple[type[BaseModel], ...]] = {
    VM_KEY: (DesiredVm,),
    NODE_KEY: (FabricNode, SwitchingNode, RoutingNode),
    POOLS_KEY: (DesiredPools,),
}
_EVENTS: tuple[type[Event], ...] = (*REQUESTS, *FACTS, *PASSING)


def document() -> Json:
    """The whole contract. The same models always give the same document."""
    models: list[type[BaseModel]] = [*_EVENTS, *chain.from_iterable(_DESIRED.values())]
    models += [model for pair in ADMINISTRATION.values() for model in pair]
    unique = sorted(set(models), key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in unique], ref_template="#/components/schemas/{model}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "vmfabric", "version": "1.0.0", "description": "JSON over NATS is the whole interface."},
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": dict(sorted(schemas["$defs"].items())),
            "messages": {model.__name__: _message(model) for model in unique},
            "messageTraits": {"cloudEvent": {"headers": _cloud_event_headers()}},
        },
    }


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


def _channels() -> Json:
    channels: Json = {event.subject_template.stem: _channel(event.subject_template, event) for event in _EVENTS}
    for template, values in _DESIRED.items():
        bucket = Template(f"$KV.{BUCKET}.{template.stem}", template.names)
        channels[f"desired.{template.stem}"] = _channel(bucket, *values)
    for subject, (asked, answer) in ADMINISTRATION.items():
        channels[subject] = {"address": subject, "messages": {**_reference(asked), **_reference(answer)}}
    return channels


def _channel(template: Template, *models: type[BaseModel]) -> Json:
    return {
        "address": ".".join([template.stem, *(f"{{{name}}}" for name in template.names)]),
        "description": " Or: ".join(inspect.getdoc(model) or "" for model in models),
        "parameters": {name: {"description": f"the {name}, as in the body"} for name in template.names},
        "messages": {name: body for model in models for name, body in _reference(model).items()},
    }


def _operations() -> Json:
    operations: Json = {}
    for event in _EVENTS:
        action = "receive" if issubclass(event, RequestEvent) else "send"
        operations[f"{action}.{event.subject_template.stem}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{event.subject_template.stem}"},
        }
    for subject in ADMINISTRATION:
        operations[f"answer.{subject}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{subject}"},
            "reply": {"channel": {"$ref": f"#/channels/{subject}"}},
        }
    return operations


def _message(model: type[BaseModel]) -> Json:
    message: Json = {"name": model.__name__, "payload": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if issubclass(model, Event):
        message["traits"] = [{"$ref": "#/components/messageTraits/cloudEvent"}]
    return message


def _reference(model: type[BaseModel]) -> Json:
    return {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"}}


def _cloud_event_headers() -> Json:
    names = (
        "ce-specversion",
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-time",
        "content-type",
        "traceparent",
        "Nats-Msg-Id",
    )
    return {
        "type": "object",
        "description": "CloudEvents binary mode. Requests are accepted without any header.",
        "properties": {name: {"type": "string"} for name in names},
    }
