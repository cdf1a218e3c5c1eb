"""What coordinator and client say to each other over HTTP, as JSON and signatures; see ``docs/protocol.md``."""
