"""Kafka: partitions as an input, topics as outputs, a compacted topic as a table, topics read by a group."""

from __future__ import annotations

from connectors.kafka.client import ANSWER_S, TIMEOUT_S, Cluster, KafkaTrouble
from connectors.kafka.group import GroupReader, has_place
from connectors.kafka.log import Place, Places, Record
from connectors.kafka.reader import KafkaInput
from connectors.kafka.retention import retention
from connectors.kafka.shared import SharedReader
from connectors.kafka.table import Change, KafkaTable, whole
from connectors.kafka.writer import KafkaWriter, ensure_topic

__all__ = [
    "ANSWER_S",
    "TIMEOUT_S",
    "Change",
    "Cluster",
    "GroupReader",
    "KafkaInput",
    "KafkaTable",
    "KafkaTrouble",
    "KafkaWriter",
    "Place",
    "Places",
    "Record",
    "SharedReader",
    "ensure_topic",
    "has_place",
    "retention",
    "whole",
]
