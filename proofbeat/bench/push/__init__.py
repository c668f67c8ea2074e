"""`bench xds-push`: one secret rotated to many streams that acknowledge it, beside a go-control-plane server."""
