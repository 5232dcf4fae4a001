"""The subcommands of `qaudio`: each module registers its own and imports what is heavy late."""
