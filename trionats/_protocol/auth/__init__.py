"""Who we are: what CONNECT says, NKeys and credentials files, JWTs for users, contexts of the nats command line tool."""
