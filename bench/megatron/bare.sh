# Nothing beside the arguments that are given.
LOCAL=() MODEL=() DATA=() TRAINING=()
