"""A server under everything at once: honest clients, crashing ones, attackers, faults; audited all the time."""
