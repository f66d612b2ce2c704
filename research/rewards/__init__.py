"""What a text earns for how it is written, beside whether it is right.

Each module has one function, `bonus(text, **args)`, a share in [0, 1]. What can
be earned without being right is soon done for its own sake: weigh it lightly.
"""
