package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Cleanup takes everything managed by ip-masq out of the kernel, from every backend, and then out of the state directories. It
// may be repeated and killed: what is on disk goes last. The error names what other software's rules kept alive.
func (n *Node) Cleanup(ctx context.Context) error {
	release, err := n.exclusive(ctx)
	if err != nil {
		return err
	}
	defer release()
	var failures []error
	for _, kind := range registry.Auto.Kinds() {
		err := n.open(kind).RemoveAll(ctx, n.everyChain()...)
		if errors.Is(err, backend.ErrUnavailable) && !n.stands(ctx, kind) {
			continue // a host without iptables has no rules of it
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil && !onlyKept(failures) {
		return err
	}
	for _, path := range n.files() {
		if err := os.RemoveAll(path); err != nil {
			failures = append(failures, fmt.Errorf("remove state: %w", err))
		}
	}
	_ = os.Remove(n.dataDir)
	return errors.Join(failures...)
}

// Leftovers lists what Cleanup would remove, one line each: shared chains by backend and family, then files. It reads only.
func (n *Node) Leftovers(ctx context.Context) ([]string, error) {
	var lines []string
	for _, family := range bothFamilies {
		for _, p := range n.everyPlace(ctx, family) {
			lines = append(lines, fmt.Sprintf("%s %s: chain %s, the pods' rules, and the root rule that leads to them", p.kind, family, p.chain))
		}
	}
	return append(lines, n.files()...), ctx.Err()
}

// Attached counts the attachments on record.
func (n *Node) Attached() (int, error) {
	records, err := n.records.List()
	return len(records), err
}

// everyChain names the shared chains that rules on this node may have been made with.
func (n *Node) everyChain() []string {
	d, _ := n.Decision()
	chains := append([]string{n.settings().Chain, n.defaults.Chain, d.Chain}, d.FormerChains...)
	slices.Sort(chains)
	return slices.DeleteFunc(slices.Compact(chains), func(chain string) bool { return chain == "" })
}

// everyPlace lists where something stands in a family, under any of those names or another.
func (n *Node) everyPlace(ctx context.Context, family policy.Family) []place {
	var places []place
	s := n.settings()
	for _, chain := range n.everyChain() {
		for _, p := range n.found(ctx, place{chain: chain}.in(s), family) {
			if !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	return places
}

func (n *Node) stands(ctx context.Context, kind backend.Kind) bool {
	return slices.ContainsFunc(bothFamilies, func(family policy.Family) bool {
		return slices.ContainsFunc(n.everyPlace(ctx, family), func(p place) bool { return p.kind == kind })
	})
}

func onlyKept(failures []error) bool {
	for _, err := range failures {
		var kept *backend.Kept
		if err != nil && !errors.As(err, &kept) {
			return false
		}
	}
	return true
}

// files lists those that are there, with what writers left that were killed. The locks stay: this process holds one.
func (n *Node) files() []string {
	var files []string
	for _, path := range []string{n.records.Dir, n.optOuts.Dir, filepath.Join(n.stateDir, deletedDir), n.decisionPath(), n.refusalsPath(), n.addressesPath(), n.policyPath(), filepath.Join(n.stateDir, socketFile)} {
		if _, err := os.Lstat(path); err == nil {
			files = append(files, path)
		}
	}
	files = append(files, atomicfile.Unfinished(n.stateDir, decisionFile, refusalsFile, addressesFile)...)
	return append(files, atomicfile.Unfinished(n.dataDir, policyFile)...)
}
