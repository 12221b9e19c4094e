"""The wire: the port's manners over real sockets, one regression test per defect of the stock library, and the small parts alone."""
