// A Vulkan layer that loses devices as drivers do: a call that waits or submits answers VK_ERROR_DEVICE_LOST, and so do all later
// ones on that device, until it is destroyed. A device that is opened afterwards is well.
//
// KILN_LOSE says which calls, counted over the process from 1: "wait:40,submit:90". Where the n-th waits, the device is let come to
// rest first. With KILN_DRESS adapters call themselves cards of their own, so that Kiln takes them by itself; with KILN_REFUSE none
// can be opened. The types are those of vulkan_core.h and vk_layer.h, as far as they are needed here.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int32_t Result;
typedef void (*Function)(void);
typedef Function (*GetProcAddr)(void *, const char *);
enum { SUCCESS = 0, ERROR_INITIALIZATION_FAILED = -3, ERROR_DEVICE_LOST = -4 };
enum { LOADER_INSTANCE_CREATE_INFO = 47, LOADER_DEVICE_CREATE_INFO = 48, LAYER_LINK_INFO = 0, DISCRETE_GPU = 2 };

typedef struct Chain {
    int32_t type;
    struct Chain *next;
} Chain;

typedef struct Link {
    struct Link *next;
    GetProcAddr instance_proc;
    // of a device's link; of an instance's it is another function
    GetProcAddr device_proc;
} Link;

typedef struct {
    int32_t type;
    Chain *next;
    int32_t function;
    Link *link;
} LoaderInfo;

typedef struct {
    int32_t type;
    void *next;
    uint32_t version;
    GetProcAddr instance_proc, device_proc, physical_device_proc;
} Negotiation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GetProcAddr next_instance_proc, next_device_proc;
static Result (*next_wait)(void *, const void *, uint64_t), (*next_count)(void *, uint64_t, uint64_t *);
static Result (*next_submit)(void *, uint32_t, const void *, uint64_t), (*next_rest)(void *), (*next_queue_rest)(void *);
static void (*next_destroy)(void *, const void *);
static uint64_t waits, submissions;
static void (*next_properties)(void *, uint32_t *), (*next_properties2)(void *, void *);
static void *lost[64];

// A device and its queues begin with the same pointer, by which the loader finds their functions.
static void *key(void *object) { return *(void **)object; }

static int is_lost(void *object) {
    for (size_t i = 0; i < 64; i++) {
        if (lost[i] && lost[i] == key(object)) return 1;
    }
    return 0;
}

// Whether KILN_LOSE names the n-th call of a kind.
static int is_named(const char *kind, uint64_t n) {
    const char *list = getenv("KILN_LOSE");
    char wanted[64];
    size_t len = (size_t)snprintf(wanted, sizeof wanted, "%s:%llu", kind, (unsigned long long)n);
    for (const char *at = list ? strstr(list, wanted) : NULL; at; at = strstr(at + 1, wanted)) {
        if (at[len] == ',' || at[len] == 0) return 1;
    }
    return 0;
}

// Whether a call is to answer that the device is lost.
static int loses(void *object, const char *kind, uint64_t *counted) {
    pthread_mutex_lock(&lock);
    int now = !is_lost(object) && is_named(kind, ++*counted);
    for (size_t i = 0; now && i < 64; i++) {
        if (!lost[i]) {
            lost[i] = key(object);
            break;
        }
    }
    int answer = is_lost(object);
    pthread_mutex_unlock(&lock);
    return answer;
}

static Result wait_semaphores(void *device, const void *info, uint64_t timeout) {
    if (!loses(device, "wait", &waits)) return next_wait(device, info, timeout);
    next_rest(device);
    return ERROR_DEVICE_LOST;
}

static Result queue_submit(void *queue, uint32_t count, const void *infos, uint64_t fence) {
    return loses(queue, "submit", &submissions) ? ERROR_DEVICE_LOST : next_submit(queue, count, infos, fence);
}

static Result counter_value(void *device, uint64_t semaphore, uint64_t *value) {
    return is_lost(device) ? ERROR_DEVICE_LOST : next_count(device, semaphore, value);
}

static Result device_wait_idle(void *device) {
    Result result = next_rest(device);
    return is_lost(device) ? ERROR_DEVICE_LOST : result;
}

static Result queue_wait_idle(void *queue) {
    Result result = next_queue_rest(queue);
    return is_lost(queue) ? ERROR_DEVICE_LOST : result;
}

static void destroy_device(void *device, const void *allocator) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; device && i < 64; i++) {
        if (lost[i] == key(device)) lost[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
    next_destroy(device, allocator);
}

static LoaderInfo *link_of(const void *create_info, int32_t type) {
    Chain *chain = ((const Chain *)create_info)->next;
    while (chain && !(chain->type == type && ((LoaderInfo *)chain)->function == LAYER_LINK_INFO)) chain = chain->next;
    return (LoaderInfo *)chain;
}

static Result create_instance(const void *info, const void *allocator, void **instance) {
    LoaderInfo *loader = link_of(info, LOADER_INSTANCE_CREATE_INFO);
    if (!loader) return ERROR_INITIALIZATION_FAILED;
    next_instance_proc = loader->link->instance_proc;
    loader->link = loader->link->next;
    Result (*create)(const void *, const void *, void **) = (void *)next_instance_proc(NULL, "vkCreateInstance");
    Result result = create(info, allocator, instance);
    if (result != SUCCESS) return result;
    next_properties = (void *)next_instance_proc(*instance, "vkGetPhysicalDeviceProperties");
    next_properties2 = (void *)next_instance_proc(*instance, "vkGetPhysicalDeviceProperties2");
    if (!next_properties2) next_properties2 = (void *)next_instance_proc(*instance, "vkGetPhysicalDeviceProperties2KHR");
    return SUCCESS;
}

// VkPhysicalDeviceProperties begins with five numbers, of which the last is the kind of device.
static void dress(uint32_t *properties) {
    if (getenv("KILN_DRESS")) properties[4] = DISCRETE_GPU;
}

static void properties(void *physical, uint32_t *found) {
    next_properties(physical, found);
    dress(found);
}

// VkPhysicalDeviceProperties2 holds them behind a type and a pointer.
static void properties2(void *physical, void *found) {
    next_properties2(physical, found);
    dress((uint32_t *)((char *)found + sizeof(Chain)));
}

static Result create_device(void *physical, const void *info, const void *allocator, void **device) {
    LoaderInfo *loader = link_of(info, LOADER_DEVICE_CREATE_INFO);
    if (!loader || getenv("KILN_REFUSE")) return ERROR_INITIALIZATION_FAILED;
    Link *link = loader->link;
    loader->link = link->next;
    Result (*create)(void *, const void *, const void *, void **) = (void *)link->instance_proc(NULL, "vkCreateDevice");
    Result result = create(physical, info, allocator, device);
    if (result != SUCCESS) return result;
    next_device_proc = link->device_proc;
    next_wait = (void *)next_device_proc(*device, "vkWaitSemaphores");
    if (!next_wait) next_wait = (void *)next_device_proc(*device, "vkWaitSemaphoresKHR");
    next_count = (void *)next_device_proc(*device, "vkGetSemaphoreCounterValue");
    if (!next_count) next_count = (void *)next_device_proc(*device, "vkGetSemaphoreCounterValueKHR");
    next_submit = (void *)next_device_proc(*device, "vkQueueSubmit");
    next_rest = (void *)next_device_proc(*device, "vkDeviceWaitIdle");
    next_queue_rest = (void *)next_device_proc(*device, "vkQueueWaitIdle");
    next_destroy = (void *)next_device_proc(*device, "vkDestroyDevice");
    return SUCCESS;
}

static Function device_proc(void *device, const char *name);
static Function instance_proc(void *instance, const char *name);

static Function own(const char *name) {
    static const struct {
        const char *name;
        Function function;
    } all[] = {
        {"vkGetInstanceProcAddr", (Function)instance_proc},
        {"vkGetDeviceProcAddr", (Function)device_proc},
        {"vkCreateInstance", (Function)create_instance},
        {"vkGetPhysicalDeviceProperties", (Function)properties},
        {"vkGetPhysicalDeviceProperties2", (Function)properties2},
        {"vkGetPhysicalDeviceProperties2KHR", (Function)properties2},
        {"vkCreateDevice", (Function)create_device},
        {"vkDestroyDevice", (Function)destroy_device},
        {"vkWaitSemaphores", (Function)wait_semaphores},
        {"vkWaitSemaphoresKHR", (Function)wait_semaphores},
        {"vkGetSemaphoreCounterValue", (Function)counter_value},
        {"vkGetSemaphoreCounterValueKHR", (Function)counter_value},
        {"vkQueueSubmit", (Function)queue_submit},
        {"vkDeviceWaitIdle", (Function)device_wait_idle},
        {"vkQueueWaitIdle", (Function)queue_wait_idle},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i].name, name) == 0) return all[i].function;
    }
    return NULL;
}

static Function device_proc(void *device, const char *name) {
    Function function = own(name);
    return function ? function : next_device_proc(device, name);
}

static Function instance_proc(void *instance, const char *name) {
    Function function = own(name);
    return function ? function : next_instance_proc(instance, name);
}

__attribute__((visibility("default"))) Result vkNegotiateLoaderLayerInterfaceVersion(Negotiation *negotiation) {
    negotiation->version = 2;
    negotiation->instance_proc = instance_proc;
    negotiation->device_proc = device_proc;
    negotiation->physical_device_proc = NULL;
    return SUCCESS;
}
