package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// addressesFile holds those of the node's own addresses that the policy could give to connections at the last good Sync, for the
// agent that starts after this one: where one came meanwhile, connections began without it. It is there only where a policy or an
// annotation names source addresses.
const addressesFile = "addresses.json"

// addressesDocument is the content of the file.
type addressesDocument struct {
	Version   int          `json:"version"`
	Addresses []netip.Addr `json:"addresses"`
}

func (n *Node) addressesPath() string { return filepath.Join(n.stateDir, addressesFile) }

// formerAddresses are those of the last good Sync, be it another process's; nil where they are not known.
func (n *Node) formerAddresses() *[]netip.Addr {
	if n.addressesBefore != nil {
		return n.addressesBefore
	}
	var document addressesDocument
	if !readList(n.addressesPath(), &document, &document.Version) {
		return nil
	}
	return &document.Addresses
}

// keepAddresses takes in those of a Sync that ended well.
func (n *Node) keepAddresses(p policy.Policy, addresses []netip.Addr) {
	records, _ := n.Records()
	named := len(ruleset.SourceAddresses(p, records)) > 0
	former := n.addressesBefore
	n.addressesBefore = &addresses
	_, err := os.Lstat(n.addressesPath())
	if former != nil && slices.Equal(*former, addresses) && (err == nil) == named {
		return
	}
	if err := writeList(n.addressesPath(), addressesDocument{attachment.FormatVersion, addresses}, !named); err != nil {
		n.log.Warn("the next agent will not know of which addresses connections could get one: those that began before an address came keep theirs", "error", err)
	}
}
