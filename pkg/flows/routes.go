package flows

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// routes tells through which interface pods' packets leave, by the routes as they are now. Marks that other software's rules give
// to packets are not known, so where they decide about the route it may be another one.
type routes struct {
	links map[int]string
	known map[route]string // empty: not known
}

type route struct{ source, destination netip.Addr }

func newRoutes() *routes { return &routes{map[int]string{}, map[route]string{}} }

func (r *routes) output(source, destination netip.Addr) (name string, known bool) {
	key := route{source, destination}
	name, asked := r.known[key]
	if !asked {
		name = r.ask(key)
		r.known[key] = name
	}
	return name, name != ""
}

// ask has the kernel route a packet that comes in by the pod's interface.
func (r *routes) ask(key route) string {
	back, err := netlink.RouteGet(key.source.AsSlice())
	if err != nil || len(back) != 1 {
		return ""
	}
	there, err := netlink.RouteGetWithOptions(key.destination.AsSlice(), &netlink.RouteGetOptions{SrcAddr: key.source.AsSlice(), IifIndex: back[0].LinkIndex})
	if err != nil || len(there) != 1 {
		return ""
	}
	index := there[0].LinkIndex
	if _, ok := r.links[index]; !ok {
		r.links[index] = ""
		if link, err := netlink.LinkByIndex(index); err == nil {
			r.links[index] = link.Attrs().Name
		}
	}
	return r.links[index]
}
