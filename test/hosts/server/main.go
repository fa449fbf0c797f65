// Command server answers HTTP with the address that it sees, and logs that as
// Jellyfin logs a failed login.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	s := &http.Server{Addr: os.Args[1], ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Printf("[%s] [INF] [31] Jellyfin.Server.Implementations.Users.UserManager: Authentication request for \"root\" has been denied (IP: \"%s\").\n",
			time.Now().Format("15:04:05"), host)
		fmt.Fprintln(w, host)
	})}
	log.Fatal(s.ListenAndServe())
}
