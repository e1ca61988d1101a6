"""Publishing into streams: what one publish may ask for and which PubAck counts (`publish`), and many in flight (`publisher`)."""
