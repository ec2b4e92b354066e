"""Examples of the library, and the simulator with known truth that they draw on."""
