"""What the services that follow a constitution (constitution_follow) share: settings, probe scope, forced refresh."""
