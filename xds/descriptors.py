"""Protobuf messages from a table: a private descriptor pool instead of generated code.

A private pool cannot collide with another library that registers the same Envoy messages in the default one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    wrappers_pb2,
)

_SCALARS = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
}
_WELL_KNOWN = {
    "google.protobuf." + name: file.DESCRIPTOR
    for file, names in {
        any_pb2: ("Any",),
        duration_pb2: ("Duration",),
        struct_pb2: ("Struct",),
        wrappers_pb2: ("BoolValue", "UInt32Value"),
    }.items()
    for name in names
}
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_ENUM = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM


@dataclass(frozen=True, slots=True)
class Field:
    """One field: a scalar's name, a message's full name, or `enum NAME`; for maps, the type of the value."""

    number: int
    name: str
    kind: str
    repeated: bool = False
    map: bool = False
    oneof: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """Messages and enums by full name, as a proto file would declare them."""

    messages: Mapping[str, tuple[Field, ...]]
    enums: Mapping[str, tuple[str, ...]]


def build(schema: Schema) -> Mapping[str, type[Any]]:
    """Make the message classes of `schema` in a new pool that also knows the well-known types used here."""
    pool = descriptor_pool.DescriptorPool()
    for known in dict.fromkeys(_WELL_KNOWN.values()):
        pool.AddSerializedFile(known.serialized_pb)
    for package_file in _files(schema):
        pool.Add(package_file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in schema.messages}


def _files(schema: Schema) -> Iterable[descriptor_pb2.FileDescriptorProto]:
    """One file a package, in the table's order, which therefore lists a package before those that use it."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for full_name, fields in schema.messages.items():
        package, name = full_name.rsplit(".", 1)
        file = _file(files, package)
        file.message_type.append(_message(full_name, name, fields))
        for dependency in sorted(_dependencies(package, fields) - set(file.dependency)):
            file.dependency.append(dependency)
    for full_name, values in schema.enums.items():
        package, name = full_name.rsplit(".", 1)
        _file(files, package).enum_type.append(_enum(name, values))
    return files.values()


def _file(files: dict[str, descriptor_pb2.FileDescriptorProto], package: str) -> descriptor_pb2.FileDescriptorProto:
    if package not in files:
        files[package] = descriptor_pb2.FileDescriptorProto(name=_file_name(package), package=package, syntax="proto3")
    return files[package]


def _file_name(package: str) -> str:
    return package.replace(".", "/") + ".proto"


def _dependencies(package: str, fields: tuple[Field, ...]) -> set[str]:
    kinds = {field.kind.removeprefix("enum ") for field in fields if field.kind not in _SCALARS}
    return {
        _WELL_KNOWN[kind].name if kind in _WELL_KNOWN else _file_name(kind.rsplit(".", 1)[0])
        for kind in kinds
        if kind.rsplit(".", 1)[0] != package
    }


def _enum(name: str, values: tuple[str, ...]) -> descriptor_pb2.EnumDescriptorProto:
    return descriptor_pb2.EnumDescriptorProto(
        name=name,
        value=[descriptor_pb2.EnumValueDescriptorProto(name=v, number=n) for n, v in enumerate(values)],
    )


def _message(full_name: str, name: str, fields: tuple[Field, ...]) -> descriptor_pb2.DescriptorProto:
    message = descriptor_pb2.DescriptorProto(name=name)
    oneofs = sorted({field.oneof for field in fields if field.oneof})
    for oneof in oneofs:
        message.oneof_decl.add(name=oneof)
    for field in fields:
        if field.map:
            message.nested_type.append(_map_entry(field))
            entry = f".{full_name}.{_entry_name(field)}"
            message.field.add(name=field.name, number=field.number, label=_REPEATED, type=_MESSAGE, type_name=entry)
            continue
        declared = message.field.add(name=field.name, number=field.number)
        declared.label = _REPEATED if field.repeated else _OPTIONAL
        _set_kind(declared, field.kind)
        if field.oneof:
            declared.oneof_index = oneofs.index(field.oneof)
    return message


def _map_entry(field: Field) -> descriptor_pb2.DescriptorProto:
    entry = descriptor_pb2.DescriptorProto(name=_entry_name(field))
    entry.options.map_entry = True
    key = entry.field.add(name="key", number=1, label=_OPTIONAL)
    _set_kind(key, "string")
    value = entry.field.add(name="value", number=2, label=_OPTIONAL)
    _set_kind(value, field.kind)
    return entry


def _entry_name(field: Field) -> str:
    return "".join(part.title() for part in field.name.split("_")) + "Entry"


def _set_kind(declared: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        declared.type = _SCALARS[kind]
    elif kind.startswith("enum "):
        declared.type = _ENUM
        declared.type_name = "." + kind.removeprefix("enum ")
    else:
        declared.type = _MESSAGE
        declared.type_name = "." + kind
