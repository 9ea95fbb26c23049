"""What can go wrong in `policies`."""


class PolicyError(Exception):
    """Root of this package's errors."""


class TokenInvalid(PolicyError):
    """Raised when a token was not issued for this site, is malformed, or does not verify."""


class TokenExpired(PolicyError):
    """Raised when a token's time is over."""


class BundleInvalid(PolicyError):
    """Raised when a bundle does not validate; the message names file, line and cure."""


class BundleUntrusted(PolicyError):
    """Raised when a bundle is unsigned, signed by another key, or was changed after signing."""


class BundleOutdated(PolicyError):
    """Raised when a bundle is older than the one in use, or differs from it at the same version."""


class CasesInvalid(PolicyError):
    """Raised when a pack's test cases do not say what they should; the message names the file."""
