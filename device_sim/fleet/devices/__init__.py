"""What devices are: profiles, links, energy, time; and what one round does to them."""
