"""Where does a test go: house/ the house itself; protocols/ storage/ node/ mirror the packages; simulation/ the world in one process;
functional/ real processes; vectors/ golden bytes. Packages, so that contracts and harnesses are imported by their full name."""
