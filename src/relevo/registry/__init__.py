"""Model versions: what was trained, sealed into a signed bundle, and where it stands in its life.

A bundle is content-addressed files with a manifest that names the SHA-256 of each. The manifest is signed with Ed25519
and its own SHA-256 names the bundle. Only a bundle that was verified whole is ever loaded.
"""
