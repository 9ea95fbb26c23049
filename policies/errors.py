"""What can go wrong in `policies`."""


class PolicyError(Exception):
    """Root of this package's errors."""


class TokenInvalid(PolicyError):
    """Raised when a token was not issued for this site, is malformed, or does not verify."""


class TokenExpired(PolicyError):
    """Raised when a token's time is over."""


class ApproversInvalid(PolicyError):
    """Raised when a site's approvers could never approve anything, or one of them counts twice."""


class BundleInvalid(PolicyError):
    """Raised when a bundle does not validate; the message names file, line and cure."""


class BundleUntrusted(PolicyError):
    """Raised when a bundle is unsigned, signed by another key, or was changed after signing."""


class BundleUnderSigned(BundleUntrusted):
    """Raised when too few of a site's approvers signed a bundle."""


class BundleForeign(BundleUntrusted):
    """Raised when a bundle was made for another site."""


class BundleOutdated(PolicyError):
    """Raised when a bundle is older than the one in use, or differs from it at the same version."""


class CasesInvalid(PolicyError):
    """Raised when a pack's test cases do not say what they should; the message names the file."""


class FactsInvalid(PolicyError):
    """Raised when a fact is outside its closed set; it is never mapped to something looser."""
