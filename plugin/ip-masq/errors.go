package main

import (
	"errors"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
)

// Error codes of our own; those below 100 are the specification's.
const (
	codeNotAvailable uint = 50
	codeLimited      uint = 51
	codeBackend      uint = 100
	codeNoBackend    uint = 101
	codeJumpMissing  uint = 102
	codeChainMissing uint = 103
	codeGCIncomplete uint = 104
)

// cniError is the one place where a failure gets its code.
func cniError(err error) error {
	var missing *backend.Missing
	var bad *attachment.BadAnnotation
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		return types.NewError(types.ErrInvalidNetworkConfig, line(err), "")
	case errors.Is(err, backend.ErrBusy):
		return types.NewError(types.ErrTryAgainLater, line(err), "")
	case errors.As(err, &missing) && missing.Part == backend.PartChain:
		return types.NewError(codeChainMissing, line(err), "")
	case missing != nil:
		return types.NewError(codeJumpMissing, line(err), "")
	case errors.Is(err, node.ErrNoBackend), errors.Is(err, node.ErrOtherBackend), errors.Is(err, backend.ErrUnavailable):
		return types.NewError(codeNoBackend, line(err), "")
	}
	return types.NewError(codeBackend, line(err), "")
}

func gcError(err error) error {
	if err == nil || errors.Is(err, backend.ErrBusy) {
		return cniError(err)
	}
	return types.NewError(codeGCIncomplete, line(err), "")
}

func statusError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, node.ErrPodsAffected):
		return types.NewError(codeLimited, line(err), "")
	}
	return types.NewError(codeNotAvailable, line(err), "")
}

// line joins what errors.Join put on lines of their own: runtimes log messages as one line.
func line(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// errorVersion is the cniVersion of an error result: the highest that we speak. The configuration's is not known in every
// case where an error is printed, and the format is the same in all.
func errorVersion() string {
	versions := supported.SupportedVersions()
	return versions[len(versions)-1]
}
