"""What an operator does from outside the stream.

check         settings, connections, topics, rights: what is wrong
topics        create, list and compare the topics
topics.yaml   ★ the only list of topics
dead_letters  show, replay and purge what failed
verify        the tag topic against the store; repairs
rebuild       refill an emptied store from the tag topic
audit         what became of a known history
evaluate      a model version measured on a data set
"""
