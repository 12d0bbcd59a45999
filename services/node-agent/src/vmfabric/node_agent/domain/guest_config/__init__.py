"""What a guest is told of its network, in the form that its image reads. One file for each form."""
