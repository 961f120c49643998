"""Documents of other formats as plan/v1: SCXML state machines and BehaviorTree.CPP trees. Pure: bytes in, values out.

``read_scxml`` and ``read_btcpp`` give an ``Imported``: the document, and what could not be said in it.
"""
