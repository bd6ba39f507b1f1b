"""What anybody may ask of a file: never torch. The packed checker is this folder."""
