"""The service beside the lanes: assembly, lane process, outbox, dispatch, daemon."""
