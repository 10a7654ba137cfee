package node

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// openings counts how often each file of a directory is opened.
type openings struct{ fd int }

func watchOpenings(t *testing.T, dir string) openings {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_OPEN)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return openings{fd}
}

// of returns the counts since the last call, of names with the suffix.
func (o openings) of(suffix string) map[string]int {
	counts := map[string]int{}
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(o.fd, buffer)
		if err != nil || n <= 0 {
			return counts
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			if name := strings.TrimRight(string(rest[unix.SizeofInotifyEvent:end]), "\x00"); strings.HasSuffix(name, suffix) {
				counts[name]++
			}
			rest = rest[end:]
		}
	}
}

// TestSyncReadsEachRecordOnce: a Sync asks several times who is on record. What it adopted itself it does not read, and a later one
// reads it once.
func TestSyncReadsEachRecordOnce(t *testing.T) {
	const pods = 20
	ns := attachment.StatNetNS(netnstest.NewSpace(t, "pod").Path)
	var all listed
	for i := range pods {
		all = append(all, attachment.Attachment{
			Owner: attachment.Owner{Network: "pods", ContainerID: fmt.Sprint("c", i), IfName: "lo"}, NetNS: ns,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})},
		})
	}
	k := newKernel(t, "nft", Options{Runtime: all, Choice: "nftables"})
	if err := os.MkdirAll(k.RecordsDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	opened := watchOpenings(t, k.RecordsDir())
	if result := k.mustSync(t); result.Adopted != pods {
		t.Fatalf("%d pods adopted, want %d", result.Adopted, pods)
	}
	if counts := opened.of(recordSuffix); len(counts) != 0 {
		t.Errorf("records were read that were just written: %v", counts)
	}
	time.Sleep(2 * attachment.RacyTime)
	k.mustSync(t)
	counts := opened.of(recordSuffix)
	if len(counts) != pods {
		t.Errorf("%d records were read, want %d", len(counts), pods)
	}
	for name, n := range counts {
		if n != 1 {
			t.Errorf("%s was read %d times", name, n)
		}
	}
}

const recordSuffix = ".json"
