"""fedjax_rl: federated reinforcement learning as one array program."""
