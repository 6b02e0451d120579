"""The main path of an event, and what decides on the way. Read worker.py and carry.py first.

worker        ★ the loop: steps 1–3 and 9
carry         ★ one micro-batch: steps 4–8, in order
handover      partitions come and go
delivery      at least once, exactly once: in which order records and offsets go out
entry         a record on its way; the partitions that this worker holds
decode        bytes → event, or a reason
lanes         one product never in flight twice; superseding
batching      micro-batches: full or due
offsets       which offsets may be committed when work finishes out of order
outgoing      the records that go out: tags, tombstones, dead letters
healing       what to repair after partitions were lost without notice
halting       when so much fails that the stream must stop
backpressure  when to stop taking records, to pause, to resume
account       what a worker reports: books, troubles, durations, lag
replay        a dead letter on its way back to its source topic
limits        what bounds a worker; the backoff between tries
scaling       how many consumers a lag calls for
"""
