"""Kafka, over librdkafka.

client          what every client shares
source          the event topic as a `Source`
group_protocol  a consumer's settings, and which group protocol it uses
publisher       the outgoing topics as a `Publisher`
transactions    exactly-once delivery, and its repair after a crash
visibility      what a reader sees of a transaction's records
topics          create, compare, read and shorten topics
lag             how far a group is, from outside
rights          what the ACLs allow
"""
