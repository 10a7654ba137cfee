package translog

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// TestForget: of pods that ended long ago nothing is kept, however many there were, but for the owner of a connection that is still open.
func TestForget(t *testing.T) {
	h, err := newHistory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	addr := netip.MustParseAddr("10.244.0.2")
	for i := range 1000 {
		a := attachment.Attachment{
			Owner:     attachment.Owner{Network: "net", ContainerID: fmt.Sprint("c", i), IfName: "eth0"},
			Addresses: []netip.Addr{addr},
		}
		h.begin(a)
		h.end(a.ID())
	}
	open := h.byAddr[addr][500].number
	h.uses[open]++
	h.forget()
	if n := len(h.byAddr[addr]); n != 1000 {
		t.Errorf("%d of 1000 tenancies are known right after their end", n)
	}
	for _, tenancy := range h.byAddr[addr] {
		tenancy.to -= int64(2 * keepEnded)
	}
	h.forget()
	if h.owners[open] == nil || len(h.byAddr) != 0 || len(h.owners) != 1 || len(h.records) != 0 || len(h.uses) != 1 {
		t.Errorf("left after %v: %d addresses, %d owners, %d records, %d uses", 2*keepEnded, len(h.byAddr), len(h.owners), len(h.records), len(h.uses))
	}
	h.uses[open]--
	h.forget()
	if len(h.owners) != 0 || len(h.uses) != 0 {
		t.Errorf("left after the last connection: %v, %v", h.owners, h.uses)
	}
}
