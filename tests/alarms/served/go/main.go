// A Go service; it re-reads its configuration by SIGHUP and opens its log for each line.
package main

import (
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

func main() {
	var conf atomic.Value
	read := func() {
		body, err := os.ReadFile("conf")
		if err != nil {
			panic(err)
		}
		conf.Store(body)
	}
	read()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			read()
		}
	}()
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		if log, err := os.OpenFile("log/service.log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
			log.WriteString(request.URL.Path + "\n")
			log.Close()
		}
		response.Write(conf.Load().([]byte))
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
