package bench

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// churned is how many pods are replaced, and churnPause what lies between, so that the agent looks at each of them alone.
const (
	churned    = 50
	churnPause = 300 * time.Millisecond
)

// TestChurn measures what a running agent spends on a pod that goes and one that comes.
func TestChurn(t *testing.T) {
	outDir(t)
	requireTools(t)
	r := newReport("Churn: the agent's part when one pod goes and another one comes, nftables")
	tab := &table{head: []string{"pods that are there", "CPU of the agent, ms"}}
	for _, pods := range []int{logPods, 1000} {
		l := newLogged(t)
		store := attachment.Store{Dir: filepath.Join(l.StateDir, "attachments")}
		for i := logPods; i < pods; i++ {
			owner := attachment.Owner{Network: "bench", ContainerID: sandbox(1_000_000 + i), IfName: "eth0"}
			a := attachment.Attachment{Owner: owner, Pod: attachment.Pod{Namespace: "bench", Name: fmt.Sprintf("pod-%05d", i)}, Addresses: addresses(i)}
			if err := store.Put(a); err != nil {
				t.Fatal(err)
			}
		}
		replaced := newReplacer(t, l)
		replaced.next(t) // the kernel tells the agent, which takes in the new records
		time.Sleep(5 * time.Second)
		before := l.cpu(t)
		for range churned {
			replaced.next(t)
			time.Sleep(churnPause)
		}
		tab.add(strconv.Itoa(pods), number((l.cpu(t)-before).Seconds()*1000/churned))
	}
	r.section("each pod", tab)
	r.done(t, "churn.md")
}
