package nftables

// Changes is changes, for the tests outside of the package.
type Changes = changes

// OfThisKernel is the way that New takes.
func OfThisKernel() Changes { return changesOf(kernelRelease()) }
