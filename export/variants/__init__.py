"""The artifacts of one bundle, each made on its own: what fails in one recipe costs no other."""
